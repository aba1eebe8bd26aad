"""How many rows go through a tower at once: found on made-up devices, which have a speed and a memory."""

from __future__ import annotations

import pytest
import torch

from encoders.batch_rows import best_rows, in_pieces, room


class Device:
    """Rows cost a millisecond each and a start costs `start_s`; more than `fit` at once do not fit."""

    def __init__(self, start_s: float, fit: int) -> None:
        self.start_s, self.fit, self.tried = start_s, fit, list[int]()

    def seconds(self, rows: int) -> float:
        self.tried.append(rows)
        if rows > self.fit:
            raise torch.OutOfMemoryError(f"{rows} rows")
        return self.start_s + rows / 1000

    def forward(self, first: int, end: int) -> range:
        self.seconds(end - first)
        return range(first, end)


@pytest.mark.parametrize(
    ("start_s", "fit", "most", "rows", "tried"),
    [
        (0.0, 9999, 512, 32, [32, 64]),  # nothing is won by more at once
        (0.010, 9999, 512, 128, [32, 64, 128, 256]),  # 762, 865, 928, 962 rows a second: the last step is less than 5 %
        (1.0, 9999, 512, 512, [32, 64, 128, 256, 512]),
        (1.0, 9999, 300, 256, [32, 64, 128, 256]),
        (1.0, 9999, 5, 5, [5]),
        (1.0, 200, 512, 128, [32, 64, 128, 256]),
        (1.0, 20, 512, 16, [32, 16]),  # what did not fit is not tried again
        (1.0, 1, 512, 1, [32, 16, 8, 4, 2, 1]),
    ],
)
def test_rows_are_doubled_while_that_is_faster_and_they_fit(
    start_s: float, fit: int, most: int, rows: int, tried: list[int]
) -> None:
    device = Device(start_s, fit)
    assert best_rows(device.seconds, most) == rows
    assert device.tried == tried


def test_a_device_without_room_for_one_row_is_told() -> None:
    nothing = Device(0.0, 0)
    with pytest.raises(torch.OutOfMemoryError, match="not even one"):
        best_rows(nothing.seconds, 512)
    with pytest.raises(torch.OutOfMemoryError, match="1 rows"):
        in_pieces(nothing.forward, 40, 32)


def test_when_memory_runs_out_every_row_still_goes_through_once_and_in_order() -> None:
    class Shrinking(Device):
        """Another tower comes to the device after 64 rows."""

        def forward(self, first: int, end: int) -> range:
            self.fit = 9999 if first < 64 else 10
            return super().forward(first, end)

    device = Shrinking(0.0, 0)
    pieces, rows = in_pieces(device.forward, 100, 32)
    assert [row for piece in pieces for row in piece] == list(range(100))
    assert (rows, [len(piece) for piece in pieces]) == (8, [32, 32, 8, 8, 8, 8, 4])
    assert device.tried == [32, 32, 32, 16, 8, 8, 8, 8, 4]


def test_batches_are_filled_up_to_few_shapes_and_little_more_than_there_is() -> None:
    assert [room(count, 32) for count in (1, 2, 3, 31, 32, 33, 37, 64, 850)] == [1, 2, 4, 32, 32, 33, 40, 64, 864]
    assert room(10, 7) == 11 and room(13, 7) == 14
    rests = {room(count, 128) % 128 for count in range(1, 1000)}
    assert rests == {0, 1, 2, 4, 8, 16, 32, 64}
