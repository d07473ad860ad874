"""Read the choices of a parameter from the source of whatever takes it, without importing torch.

A class says once, in its signature, which values it takes: `stem: Literal["imagenet", "cifar"]`. The check before a
run reads them from there.
"""

import ast
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parent.parent


def parameter_choices(target: str) -> dict[str, tuple[Any, ...]]:
    """The values of each parameter that is annotated with a `Literal`; nothing for classes outside of this package."""
    module, _, name = target.rpartition(".")
    tree = parsed(module)
    for node in tree.body if tree else ():
        if isinstance(node, ast.ImportFrom) and name in [alias.name for alias in node.names]:  # re-exported
            return parameter_choices(f"{node.module}.{name}")
        if isinstance(node, ast.ClassDef) and node.name == name:
            methods = [method for method in node.body if isinstance(method, ast.FunctionDef)]
            node = next((method for method in methods if method.name == "__init__"), node)
        elif not (isinstance(node, ast.FunctionDef) and node.name == name):
            continue
        if isinstance(node, ast.FunctionDef):
            parameters = [*node.args.args, *node.args.kwonlyargs]
            return {p.arg: found for p in parameters if (found := values(p.annotation, module))}
    return {}


def choices_of(module: str, alias: str) -> tuple[Any, ...]:
    """The values of a module's `alias = Literal[…]`."""
    return values(ast.Name(alias), module)


def values(annotation: ast.expr | None, module: str) -> tuple[Any, ...]:
    """The values that an annotation lists; nothing where it is not a `Literal`."""
    match annotation:
        case ast.Subscript(value=ast.Name(id="Literal"), slice=listed):
            found = ast.literal_eval(listed)
            return found if isinstance(found, tuple) else (found,)
        case ast.BinOp(left=left, op=ast.BitOr(), right=ast.Constant(value=None)):
            return (*found, None) if (found := values(left, module)) else ()
        case ast.Name(id=alias) if tree := parsed(module):
            for node in tree.body:
                if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == [alias]:
                    return values(node.value, module)
                if isinstance(node, ast.ImportFrom) and alias in [name.name for name in node.names]:
                    return values(annotation, str(node.module))
    return ()


@cache
def parsed(module: str) -> ast.Module | None:
    """The source of one of our own modules."""
    first, *rest = module.split(".")
    if first != PACKAGE.name:
        return None
    path = PACKAGE.joinpath(*rest)
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(path.read_text(encoding="utf-8")) if path.is_file() else None
