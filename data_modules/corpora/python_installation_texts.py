"""Real text that is available on every machine: the Python installation, about 12 MB in four sources.

    readmes     long descriptions of the installed distributions            stands in for web text
    pydoc       Python's help topics, pages of modules and classes          stands in for textbooks
    docstrings  "what does this function do?" answered by its docstring     stands in for chat
    stdlib      the standard library's source code                          stands in for code

Modules are not imported; pages are built from syntax trees. The sources share no text (pages omit the docstrings of
functions, which `docstrings` has, and `stdlib` omits all docstrings), so no source's training text contains another's
validation text. For a given installation, the documents and their order are always the same.
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

from data_modules.corpora.corpus import TextOrConversation

_LEFT_OUT = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}  # not part of the library
_GENERATED = {"encodings", "pydoc_data", "entities.py"}  # generated tables
_Function = ast.FunctionDef | ast.AsyncFunctionDef
_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def readmes() -> Iterator[TextOrConversation]:
    """Yield the long description of each installed distribution except this project, sorted by name.

    Short and repeated descriptions are left out.
    """
    seen: set[str] = set()
    # when setuptools is imported, it adds a folder with its own copies of distributions to sys.path
    installed = [folder for folder in sys.path if Path(folder).name != "_vendor"]
    for distribution in sorted(distributions(path=installed), key=lambda d: (d.name or "").lower()):
        description = distribution.metadata.get("Description") or distribution.metadata.get_payload()  # type: ignore[attr-defined]
        text = description.strip() if isinstance(description, str) else ""
        if len(text) > 100 and text not in seen and distribution.name != "gpt-lightning":
            seen.add(text)
            yield text + "\n"


def pydoc() -> Iterator[TextOrConversation]:
    """Yield Python's help topics, then a page for each module and for each documented class."""
    from pydoc_data.topics import topics  # imported here because it holds 700 kB of text

    for _, text in sorted(topics.items()):
        yield text.strip() + "\n"
    for name, _, tree in _modules():
        yield from _pages(name, tree)


def docstrings() -> Iterator[TextOrConversation]:
    """Yield a conversation for each documented function: the question has its signature, the answer is its docstring."""
    for name, _, tree in _modules():
        for qualified_name, function in _functions(tree, prefix=name):
            answer = ast.get_docstring(function)
            if answer and len(answer) > 20:
                call = f"{qualified_name}({ast.unparse(function.args)})"
                yield [
                    {"role": "user", "content": f"What does `{call}` do?"},
                    {"role": "assistant", "content": answer},
                ]


def stdlib() -> Iterator[TextOrConversation]:
    """Yield the source of each module of the standard library, without docstrings."""
    for _, source, tree in _modules():
        text = _without_docstrings(source, tree).strip()
        if len(text) > 100:
            yield text + "\n"


def _modules() -> Iterator[tuple[str, str, ast.Module]]:
    """Yield (dotted name, source, syntax tree) of the standard library's modules, sorted by path."""
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if (_LEFT_OUT | _GENERATED).intersection(parts) or path.name.startswith("_sysconfigdata"):
            continue
        try:
            with tokenize.open(path) as file:  # respects the encoding that the file declares
                source = file.read()
            tree = ast.parse(source)
        except (SyntaxError, UnicodeDecodeError, ValueError):
            continue  # templates, and files with deliberate errors
        yield ".".join(parts).removesuffix(".py").removesuffix(".__init__"), source, tree


def _pages(module_name: str, tree: ast.Module) -> Iterator[str]:
    """Yield a page in pydoc's layout for the module, if it has a docstring, then one for each documented class."""
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
    """Yield functions and methods with their dotted names; nested functions are omitted."""
    for item in node.body:
        if isinstance(item, ast.ClassDef):
            yield from _functions(item, prefix=f"{prefix}.{item.name}")
        elif isinstance(item, _Function):
            yield f"{prefix}.{item.name}", item


def _without_docstrings(source: str, tree: ast.Module) -> str:
    """Remove docstrings from source code. A body that consists only of a docstring becomes `pass`."""
    lines = source.split("\n")
    for node in ast.walk(tree):
        if not isinstance(node, _Documented) or ast.get_docstring(node, clean=False) is None:
            continue
        docstring = node.body[0]
        first, last = docstring.lineno - 1, (docstring.end_lineno or docstring.lineno) - 1
        if isinstance(node, ast.Module) or re.match(r"\s*[rRuU]*['\"]", lines[first]):  # it starts its line
            only = len(node.body) == 1 and not isinstance(node, ast.Module)
            lines[first : last + 1] = [" " * docstring.col_offset + "pass" if only else "\0"] + ["\0"] * (last - first)
    return "\n".join(line for line in lines if line != "\0")
