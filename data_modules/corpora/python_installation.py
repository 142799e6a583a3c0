"""Real text that is on every machine: the Python installation itself, about 12 MB in four sources.

    readmes     long descriptions of the installed distributions            plays the web
    pydoc       Python's help topics, pages of modules and classes          plays the textbook
    docstrings  "what does this function do?" answered by its docstring     plays the chat
    stdlib      the standard library's source code                          plays the code

No module is imported to be described: pages are built from syntax trees. The sources share no text (pages leave functions'
docstrings to `docstrings`, and `stdlib` leaves out all three), so no source's training text holds another's validation
text. For a given installation the documents and their order are always the same.
"""

import ast
import re
import sys
import sysconfig
import tokenize
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path
from textwrap import indent

from data_modules.corpora.corpus import Document

_LEFT_OUT = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}  # not the library itself
_GENERATED = {"encodings", "pydoc_data", "entities.py"}  # tables that programs wrote
_Function = ast.FunctionDef | ast.AsyncFunctionDef
_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def readmes() -> Iterator[Document]:
    """The long description of each installed distribution, by name; this project's own is left out."""
    seen: set[str] = set()
    # setuptools, once something has imported it, adds a folder of copies of its own to the path
    installed = [folder for folder in sys.path if Path(folder).name != "_vendor"]
    for distribution in sorted(distributions(path=installed), key=lambda d: (d.name or "").lower()):
        description = distribution.metadata.get("Description") or distribution.metadata.get_payload()  # type: ignore[attr-defined]
        text = description.strip() if isinstance(description, str) else ""
        if len(text) > 100 and text not in seen and distribution.name != "gpt-lightning":
            seen.add(text)
            yield text + "\n"


def pydoc() -> Iterator[Document]:
    """Python's help topics, then a page for each module and for each documented class."""
    from pydoc_data.topics import topics  # 700 kB of text, wanted by this function alone

    for _, text in sorted(topics.items()):
        yield text.strip() + "\n"
    for name, _, tree in _modules():
        yield from _pages(name, tree)


def docstrings() -> Iterator[Document]:
    """One conversation for each documented function: its signature is asked about, its docstring is the answer."""
    for name, _, tree in _modules():
        for qualified_name, function in _functions(tree, prefix=name):
            answer = ast.get_docstring(function)
            if answer and len(answer) > 20:
                call = f"{qualified_name}({ast.unparse(function.args)})"
                yield [
                    {"role": "user", "content": f"What does `{call}` do?"},
                    {"role": "assistant", "content": answer},
                ]


def stdlib() -> Iterator[Document]:
    """The source of each module of the standard library, without its docstrings."""
    for _, source, tree in _modules():
        text = _without_docstrings(source, tree).strip()
        if len(text) > 100:
            yield text + "\n"


def _modules() -> Iterator[tuple[str, str, ast.Module]]:
    """(dotted name, source, syntax tree) of the standard library's modules, in the order of their names."""
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if (_LEFT_OUT | _GENERATED).intersection(parts) or path.name.startswith("_sysconfigdata"):
            continue
        try:
            with tokenize.open(path) as file:  # honours the file's own declaration of its encoding
                source = file.read()
            tree = ast.parse(source)
        except (SyntaxError, UnicodeDecodeError, ValueError):
            continue  # templates and files broken on purpose are no Python text
        yield ".".join(parts).removesuffix(".py").removesuffix(".__init__"), source, tree


def _pages(module_name: str, tree: ast.Module) -> Iterator[str]:
    """The module's page as pydoc lays it out, if it has a docstring, then one for each documented class."""
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    description = ast.get_docstring(tree)
    if description:
        title, _, rest = description.partition("\n")
        page = f"NAME\n    {module_name} - {title}\n"
        for heading, lines in (
            ("DESCRIPTION", rest.strip()),
            ("CLASSES", "\n".join(_declaration(node) for node in classes)),
            ("FUNCTIONS", "\n".join(_signature(node) for node in tree.body if isinstance(node, _Function))),
        ):
            if lines:
                page += f"\n{heading}\n{indent(lines, '    ')}\n"
        yield page
    for node in classes:
        description = ast.get_docstring(node)
        if description:
            methods = [_signature(item) for item in node.body if isinstance(item, _Function)]
            body = description + ("\n\nMethods defined here:\n\n" + "\n".join(methods) if methods else "")
            yield f"class {_declaration(node)} in module {module_name}\n{indent(body, ' |  ', lambda line: True)}\n"


def _declaration(node: ast.ClassDef) -> str:
    return f"{node.name}({', '.join(map(ast.unparse, node.bases))})" if node.bases else node.name


def _signature(node: _Function) -> str:
    return f"{node.name}({ast.unparse(node.args)})"


def _functions(node: ast.Module | ast.ClassDef, *, prefix: str) -> Iterator[tuple[str, _Function]]:
    """Functions and methods below `node` with their dotted names; functions inside functions are left out."""
    for item in node.body:
        if isinstance(item, ast.ClassDef):
            yield from _functions(item, prefix=f"{prefix}.{item.name}")
        elif isinstance(item, _Function):
            yield f"{prefix}.{item.name}", item


def _without_docstrings(source: str, tree: ast.Module) -> str:
    """`source` less the lines of its docstrings; a body that was nothing else becomes `pass`."""
    lines = source.split("\n")
    for node in ast.walk(tree):
        if not isinstance(node, _Documented) or ast.get_docstring(node, clean=False) is None:
            continue
        docstring = node.body[0]
        first, last = docstring.lineno - 1, (docstring.end_lineno or docstring.lineno) - 1
        if isinstance(node, ast.Module) or re.match(r"\s*[rRuU]*['\"]", lines[first]):  # it begins its line
            only = len(node.body) == 1 and not isinstance(node, ast.Module)
            lines[first : last + 1] = [" " * docstring.col_offset + "pass" if only else "\0"] + ["\0"] * (last - first)
    return "\n".join(line for line in lines if line != "\0")
