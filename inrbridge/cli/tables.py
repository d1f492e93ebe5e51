"""Floor 9: how listings look on a terminal."""

from collections.abc import Iterable, Sequence


def print_table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under headers in columns as wide as their widest cell; empty cells show as "-"."""
    cells = [[str(cell) if cell not in ("", None) else "-" for cell in row] for row in rows]
    lines = [list(headers), *cells]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headers))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def print_facts(facts: Iterable[tuple[str, object]]) -> None:
    """Print name and value pairs, one a line, values aligned."""
    facts = list(facts)
    width = max((len(name) for name, _ in facts), default=0)
    for name, value in facts:
        print(f"{name.ljust(width)}  {value}".rstrip())
