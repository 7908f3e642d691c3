"""What fresh processes of a test are asked for: a module that imports nothing, as each of them would."""


def double(path: str, number: int) -> int:
    if number < 0:
        raise ValueError(f"{number} is negative")
    return 2 * number
