"""Losses and the training loop in plain torch. In: batches of pairs. Out: trained towers. jobs/ wraps them in Ray Train."""
