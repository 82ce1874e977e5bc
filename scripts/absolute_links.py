"""Makes the links of README.md absolute, for the page of a release on an index.

In the repository they are relative, so that they hold in a clone, in a fork and at any commit. The release
workflow runs this before it builds, with the address that the repository has there: no file has to know it.

    python scripts/absolute_links.py https://github.com/OWNER/NAME v1.0.0
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")


def absolute(text: str, address: str, revision: str) -> str:
    """Returns a document with absolute links.

    Args:
        text: the document, whose relative links start at the root of the repository.
        address: of the repository.
        revision: tag, branch or commit that the links point to.
    """

    def replaced(found: re.Match[str]) -> str:
        mark, label, target = found.groups()
        if "://" in target or target.startswith(("#", "mailto:")):
            return found[0]
        kind = "raw" if mark else "blob"
        return f"{mark}[{label}]({address.rstrip('/')}/{kind}/{revision}/{target})"

    return LINK.sub(replaced, text)


def main() -> None:
    """Rewrites README.md."""
    parser = argparse.ArgumentParser(description="Makes the links of README.md absolute.")
    parser.add_argument("address", help="of the repository, such as https://github.com/OWNER/NAME")
    parser.add_argument("revision", help="tag, branch or commit")
    options = parser.parse_args()
    made = absolute(README.read_text(encoding="utf-8"), options.address, options.revision)
    README.write_text(made, encoding="utf-8")


if __name__ == "__main__":
    main()
