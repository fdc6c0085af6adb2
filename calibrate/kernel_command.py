"""`simllm calibrate kernel`: what Triton's compiler did with a kernel, stage by stage. Needs a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Protocol, TypeVar

import typer

from ..errors import CalibrationError, nearest_choice
from .files import check_folder, write_whole
from .host import describe_host


class NamedCase(Protocol):
    """A tuning case: the kernel that it is of, and its full name with variant and shape."""

    @property
    def kernel(self) -> str: ...

    @property
    def name(self) -> str: ...


CaseT = TypeVar("CaseT", bound=NamedCase)


def kernel_command(
    name: Annotated[
        str, typer.Argument(help="A kernel that tuning knows, e.g. gemm or attention_decode.")
    ] = "",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Where the stages are written.")
    ] = None,
    variant: Annotated[str, typer.Option(help="Part of its variant's or shape's name, e.g. fp8.")] = "",
) -> None:
    """Compile one of our kernels as this GPU runs it, and write what each stage of the compiler made of it.

    Without a name, list the kernels. The stages are ttir (blocks), ttgir (layouts, pipelining), llir, ptx
    and sass (machine code); docs/calibrate.md says how to read them.
    """
    describe_host()
    from ..kernels.tuning_cases import cases
    from .stages import compile_case, summary_text

    known = tuple(cases())
    if not name:
        for kernel in dict.fromkeys(case.kernel for case in known):
            typer.echo(kernel)
        return
    case = chosen_case(known, name, variant)
    if output is not None:
        check_folder(output)
    stages = compile_case(case)
    text = summary_text(stages)
    typer.echo(text)
    if output is None:
        return
    output.mkdir(parents=True, exist_ok=True)
    for suffix, content in {**stages.files, "txt": text}.items():
        write_whole(output / f"{name}.{suffix}", content)


def chosen_case(known: Sequence[CaseT], name: str, variant: str) -> CaseT:
    """Returns the first case of a kernel whose full name holds `variant`.

    Raises: CalibrationError, one line, with the nearest name, if there is none.
    """
    of_kernel = [case for case in known if case.kernel == name]
    for case in of_kernel:
        if variant in case.name:
            return case
    if of_kernel:
        names = ", ".join(case.name for case in of_kernel)
        raise CalibrationError(f"--variant {variant!r}: {name} has {names}")
    nearest = nearest_choice(name, [case.kernel for case in known])
    hint = "" if nearest is None else f"; did you mean {nearest!r}?"
    raise CalibrationError(f"no kernel {name!r}{hint}")
