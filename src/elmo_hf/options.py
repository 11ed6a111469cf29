"""The keyword arguments of a function as the options of a command, without an import of the function.

@app.command()
@options_of("embedding/job.py", "embed", without={"tokenizer"})
def embed(context: typer.Context, source: str, **options): ...
"""

import ast
import inspect
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

ALIASES = {"subset": ["--config"]}  # other names of options
Command = TypeVar("Command", bound=Callable[..., None])


def options_of(path: str, name: str, without: Collection[str] = ()) -> Callable[[Command], Command]:
    """Makes the keyword-only arguments of a function the options of a command: names, defaults, help texts.

    They are read from the function's source, because to import it takes as long as to import torch.
    """
    tree = ast.parse((Path(__file__).parent / path).read_text(encoding="utf-8"))
    [function] = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    texts = argument_texts(ast.get_docstring(function) or "")
    options = [
        inspect.Parameter(
            argument.arg,
            inspect.Parameter.KEYWORD_ONLY,
            default=ast.literal_eval(default),
            annotation=option(
                argument.arg, ast.literal_eval(default), texts[argument.arg], argument.annotation
            ),
        )
        for argument, default in zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)
        if default is not None and argument.arg not in without
    ]

    def decorate(command: Command) -> Command:
        signature = inspect.signature(command)
        own = [
            parameter
            for parameter in signature.parameters.values()
            if parameter.kind is not parameter.VAR_KEYWORD
        ]
        command.__signature__ = signature.replace(parameters=[*own, *options])  # type: ignore[attr-defined]
        return command

    return decorate


def option(name: str, default: Any, text: str, annotation: ast.expr | None) -> Any:
    """An option of the default's type; one without a default is a text, and false is a mere flag."""
    flags = [f"--{name.replace('_', '-')}"] if default is False or name in ALIASES else []
    flags += ALIASES.get(name, [])
    help, is_old = text[0].upper() + text[1:], name in ("text_column", "tokens_column")
    kind: Any = str | None if default is None else type(default)
    if annotation is not None and ast.unparse(annotation) == "int | None":
        kind = int | None
    return Annotated[kind, typer.Option(*flags, help=help, hidden=is_old)]


def argument_texts(docstring: str) -> dict[str, str]:
    """The texts of a docstring's section "Args:" by argument."""
    section = docstring.partition("Args:\n")[2].partition("\n\n")[0]
    entries = re.findall(r"^    (\w[\w, ]*): (.*?)(?=^    \w|\Z)", section, re.MULTILINE | re.DOTALL)
    return {name: " ".join(text.split()) for names, text in entries for name in names.split(", ")}


def options_for(context: typer.Context, function: Callable[..., Any]) -> dict[str, Any]:
    """The arguments of a command that a function takes under the same name."""
    names = inspect.signature(function).parameters
    return {name: value for name, value in context.params.items() if name in names}
