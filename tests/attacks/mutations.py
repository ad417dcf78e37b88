# SPDX-License-Identifier: Apache-2.0
"""Taking the refusals out of a module, one at a time, to see whether anybody notices.

Found in its source, so that none can be forgotten: an `if` that only raises (and, where its condition is an `or`, each half of it), a call
of a function that checks or expects, and a filter in a comprehension. A mutant is the same function compiled without that one thing; it
is put in place by its code object, so that whoever holds the function, class or module runs it.
"""

import ast
import copy
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final

CHECKING: Final = ("check", "_check", "_expect")


Change = tuple[str, str, Callable[[], None]]
"""What is taken out, what it would have raised, and how it is taken out."""


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """A function without one of its refusals; `name` says which, `error` what would have been raised, where that is plain."""

    name: str
    function: FunctionType
    code: CodeType
    error: str


def mutants(module: ModuleType) -> list[Mutant]:
    """Every function of a module without each of its refusals."""
    tree = ast.parse(inspect.getsource(module))
    return [mutant for owner, node in _functions(tree) for mutant in _of(module, owner, node)]


def _functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield "", node
        elif isinstance(node, ast.ClassDef):
            yield from ((node.name, each) for each in node.body if isinstance(each, ast.FunctionDef))


def _of(module: ModuleType, owner: str, node: ast.FunctionDef) -> Iterator[Mutant]:
    held = inspect.getattr_static(getattr(module, owner) if owner else module, node.name)
    function = held.fget if isinstance(held, property) else inspect.unwrap(held)
    for number, (what, error, _) in enumerate(_changes(node)):
        mutated = copy.deepcopy(node)
        mutated.decorator_list = []
        *_, change = list(_changes(mutated))[number]
        change()
        names: dict[str, Any] = {}
        exec(compile(ast.fix_missing_locations(ast.Module([mutated], [])), f"<without {what}>", "exec"), vars(module), names)
        place = f"{module.__name__.rpartition('.')[2]}.{owner + '.' if owner else ''}{node.name}"
        yield Mutant(name=f"{place}: {what}", function=function, code=names[node.name].__code__, error=error)


def _changes(function: ast.FunctionDef) -> Iterator[Change]:
    """What can be taken out of a function, and how; in the same order for equal trees."""
    for node in ast.walk(function):
        for block in (getattr(node, "body", None), getattr(node, "orelse", None)):
            if isinstance(block, list):
                yield from _of_block(block)
        if isinstance(node, ast.comprehension):
            for test in list(node.ifs):
                yield f"if {ast.unparse(test)}", "", lambda node=node, test=test: node.ifs.remove(test)  # type: ignore[misc] # bound here


def _of_block(block: list[Any]) -> Iterator[Change]:
    for at, statement in enumerate(block):

        def drop(at: int = at) -> None:
            block[at] = ast.Pass()

        if isinstance(statement, ast.If) and isinstance(statement.body[-1], ast.Raise) and not statement.orelse:
            yield f"if {ast.unparse(statement.test)}", _raised(statement.body[-1]), drop
            yield from _halves(statement)
        elif isinstance(statement, ast.Expr) and _checks(statement.value):
            yield ast.unparse(statement), "", drop


def _halves(statement: ast.If) -> Iterator[Change]:
    test = statement.test
    if not isinstance(test, ast.BoolOp) or not isinstance(test.op, ast.Or):
        return
    for half in test.values:
        others = [each for each in test.values if each is not half]

        def drop(others: list[ast.expr] = others) -> None:
            statement.test = ast.BoolOp(ast.Or(), others) if len(others) > 1 else others[0]

        yield f"or {ast.unparse(half)}", _raised(statement.body[-1]), drop


def _checks(value: ast.expr) -> bool:
    return isinstance(value, ast.Call) and ast.unparse(value.func).rpartition(".")[2].startswith(CHECKING)


def _raised(statement: ast.stmt) -> str:
    """The name of the error that is made where it is raised."""
    made = statement.exc if isinstance(statement, ast.Raise) else None
    return ast.unparse(made.func) if isinstance(made, ast.Call) else ""
