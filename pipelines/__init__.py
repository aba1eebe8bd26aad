"""Ray Data and Lance: corpus to table, and the table read. In: media anywhere. Out: vectors in LanceDB, answers."""
