"""The metrics of a run for TensorBoard."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any


class TensorBoardLog:
    """Context manager: called with an epoch's row of metrics, it adds them to the event files of a folder.

    Args:
        folder: where the event files go.
        enabled: write at all; otherwise TensorBoard is not even imported.
    """

    def __init__(self, folder: Path, enabled: bool) -> None:
        self._folder = folder
        self._enabled = enabled
        self._writer: Any = None

    def __call__(self, row: dict[str, Any]) -> None:
        if not self._enabled:
            return
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            # epochs that an earlier session has shown, but not finished, are shown once
            self._writer = SummaryWriter(str(self._folder), purge_step=row["epoch"])
        for name, value in row.items():
            if name != "epoch":
                self._writer.add_scalar(name, value, row["epoch"])
        self._writer.flush()

    def __enter__(self) -> TensorBoardLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()
