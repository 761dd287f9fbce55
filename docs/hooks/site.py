"""What the site has beyond docs/: generated pages, drawings in the text, links to the rest of the checkout."""

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from reference_commands import commands_page
from reference_keys import keys_page

from igkd_hpo.config.builtin import builtin_studies

ROOT = Path(__file__).resolve().parents[2]
# Pages that are kept outside of docs/, because people look for them there.
KEPT_ELSEWHERE = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md", "SECURITY.md": "security.md"}
# What a reader of the repository finds in the source, and a reader of the site on a page.
MADE_FROM = {"igkd_hpo/config/study.py": "reference/study-keys.md", "igkd_hpo/cli/app.py": "reference/commands.md"}
DRAWING = re.compile(r"!\[([^\]]*)\]\((?:\.\./)*drawings/([a-z-]+)\.svg\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """An entry of the navigation that ends in a slash is a folder: it stands for its files, in order of their names."""
    config.nav = _with_folders(config.nav or [], Path(config.docs_dir))
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are generated, and those that are kept elsewhere."""
    pages = {
        "reference/commands.md": commands_page(),
        "reference/study-keys.md": keys_page(),
        "reference/studies.md": studies_page(),
    }
    for source, name in KEPT_ELSEWHERE.items():
        pages[name] = (ROOT / source).read_text(encoding="utf-8")
    for name, content in pages.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links that lead out of docs/ lead to the page's place on the site; drawings become part of the page."""
    name = page.file.src_uri
    up = "../" * name.count("/")
    markdown = re.sub(r"\]\((?:\.\./)+studies/([a-z0-9-]+)\.yaml\)", rf"]({up}reference/studies.md#\1)", markdown)
    for source, target in (KEPT_ELSEWHERE | MADE_FROM).items():
        markdown = re.sub(rf"\]\((?:\.\./)+{re.escape(source)}(#[^)]*)?\)", rf"]({up}{target}\1)", markdown)
    if name in KEPT_ELSEWHERE.values():
        markdown = markdown.replace("](docs/", "](")
    return DRAWING.sub(lambda found: _drawing(Path(config.docs_dir), found[2], found[1]), markdown)


def _with_folders(entries: list[Any], docs: Path) -> list[Any]:
    found: list[Any] = []
    for entry in entries:
        ((title, place),) = entry.items() if isinstance(entry, dict) else [(None, entry)]
        if isinstance(place, list):
            found.append({title: _with_folders(place, docs)})
        elif place.endswith("/"):
            files = sorted(path.name for path in (docs / place).glob("*.md") if path.name != "README.md")
            found.append({title: [f"{place}README.md", *(f"{place}{name}" for name in files)]})
        else:
            found.append(entry)
    return found


def studies_page() -> str:
    """The study files that come with the package, whole."""
    parts = ["# Built-in studies\n", "Names that every command takes in the place of a file.\n"]
    for name, path in builtin_studies().items():
        parts.append(f"## {name}\n\n```yaml\n{path.read_text(encoding='utf-8').rstrip()}\n```\n")
    return "\n".join(parts)


def _drawing(docs: Path, name: str, told: str) -> str:
    """The SVG itself, on one line: Markdown ends a block of HTML at an empty one."""
    svg = (docs / "drawings" / f"{name}.svg").read_text(encoding="utf-8")
    inside = " ".join(svg[svg.index("<svg") :].split())
    return f'<figure class="drawing" aria-label="{told}">{inside}</figure>'
