from pathlib import Path
from typing import Any

from ncmi.data.tables.table import Table


def load_table(path: Path, data: Any, **others: Any) -> Table:
    raise NotImplementedError


def read_rows(path: Path, columns: Any, data: Any, **o: Any) -> Any:
    raise NotImplementedError
