"""``python train_each.py``: reads lists of arguments (JSON), and runs ``train.py`` with each, one after the other.

Most of what a short run takes is what it imports, which is done once here. Prints for each (JSON): its exit code, and
what it said.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys

from lightning_diffaug.cli import train


def main() -> None:
    ended = []
    for arguments in json.loads(sys.stdin.read()):
        said, code = io.StringIO(), 0
        sys.argv = ["train.py", *arguments]
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            try:
                train()
            except SystemExit as end:
                code = int(end.code or 0)
        ended.append({"code": code, "said": said.getvalue()})
    print(json.dumps(ended))


if __name__ == "__main__":
    main()
