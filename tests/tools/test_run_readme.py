from __future__ import annotations

import os
from pathlib import Path

from tools.run_readme import find_blocks, run_blocks

TEXT = """# Title

```bash
touch first
```

```bash official
exit 3
```

```python
raise SystemExit
```

```bash
test -e first
touch second
```
"""


def test_finds_bash_blocks_with_lines_and_notes() -> None:
    blocks = find_blocks(TEXT)
    assert [(block.line, block.note) for block in blocks] == [(4, ""), (8, "official"), (16, "")]


def test_runs_blocks_in_one_folder_and_leaves_out_the_noted(tmp_path: Path) -> None:
    assert run_blocks(find_blocks(TEXT), tmp_path, dict(os.environ)) == 0
    assert (tmp_path / "second").exists()


def test_stops_at_the_first_failure(tmp_path: Path) -> None:
    text = "```bash\nfalse | true\n```\n```bash\ntouch never\n```\n"
    assert run_blocks(find_blocks(text), tmp_path, dict(os.environ)) == 1
    assert not (tmp_path / "never").exists()


def test_the_readme_has_commands_to_run() -> None:
    readme = Path(__file__).parents[2] / "README.md"
    assert any(not block.note for block in find_blocks(readme.read_text(encoding="utf-8")))
