"""What fresh processes of a test are asked for: a module that imports little, as each of them would."""

import os


def double(path: str, number: int) -> int:
    return 2 * number


def double_there(path: str, number: int) -> tuple[int, str | None]:
    """The same, with the devices that the process sees; an error for negative numbers."""
    device = os.environ.get("CUDA_VISIBLE_DEVICES")
    if number < 0:
        raise ValueError(f"{number} is negative on {device}")
    return 2 * number, device
