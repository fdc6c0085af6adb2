"""Measures every candidate of every kernel and keeps the winners: `python -m simllm.kernels.tune`.

Compilation dominates, so worker processes compile first, in parallel, into Triton's cache on disk. Each
candidate's output is compared with the reference; one that is wrong, or does not fit the GPU, cannot win.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

import torch
import triton

from .timing import flushed_median_s
from .tuning import Config, TuningTable, Winner, gpu_name, load_table, save_table
from .tuning_cases import cases
from .tuning_inputs import Case, Launch

# ||out - reference|| / ||reference|| that a correct candidate stays under: bf16 operands give 2e-3 to 1e-2,
# the reference's own rounding (bf16 products of fp8 blocks) about as much; a wrong index gives more than 0.1.
MAX_RELATIVE_ERROR = 3e-2
SCREENING_S, FINAL_S = 0.004, 0.15
FINALISTS = 4
Key = tuple[str, str, tuple[int, ...]]  # kernel, variant, shape
MAX_WORKERS = 12  # each holds a few GB on the GPU


def tune(chosen: Sequence[Case]) -> TuningTable:
    """Returns this GPU's table with the winners of the chosen cases measured anew, saved case by case."""
    name = gpu_name(torch.device("cuda"))
    before = load_table(name)
    winners = {} if before is None else known_winners(before)
    table = TuningTable(name, torch.__version__, triton.__version__, tuple(winners.values()))
    for case in chosen:
        winner = tune_case(case)
        winners[(winner.kernel, winner.variant, winner.shape)] = winner
        table = replace(table, winners=tuple(winners.values()))
        save_table(table)
    return table


def known_winners(table: TuningTable) -> dict[Key, Winner]:
    """Returns the winners of cases that still exist: another's configuration may no longer fit its kernel."""
    known = {(case.kernel, case.variant, case.shape) for case in cases()}
    keyed = {(winner.kernel, winner.variant, winner.shape): winner for winner in table.winners}
    return {key: winner for key, winner in keyed.items() if key in known}


def chosen_cases(kernels: Sequence[str], *, is_missing: bool) -> list[Case]:
    """Returns the cases of these kernels, all if there are none; is_missing: those without a winner yet."""
    table = load_table(gpu_name(torch.device("cuda"))) if is_missing else None
    known = set() if table is None else set(known_winners(table))
    return [
        case
        for case in cases()
        if (not kernels or case.kernel in kernels) and (case.kernel, case.variant, case.shape) not in known
    ]


def tune_case(case: Case) -> Winner:
    """Returns the fastest correct candidate of one case: all are screened, the best few timed in full."""
    started_at = time.monotonic()
    launch, reference = case.prepare()

    def timed(config: Config, budget_s: float) -> tuple[float, Config]:
        return flushed_median_s(lambda: launch(config), budget_s=budget_s), config

    correct = [config for config in case.candidates if is_correct(case, config, launch, reference)]
    screened = sorted((timed(config, SCREENING_S) for config in correct), key=lambda pair: pair[0])
    finals = [timed(config, FINAL_S) for _, config in screened[:FINALISTS]]
    if not finals:
        raise RuntimeError(f"no candidate of {case.name} runs correctly on this GPU")
    seconds, config = min(finals, key=lambda pair: pair[0])
    print(f"{case.name}: {len(screened)}/{len(case.candidates)} ran in {time.monotonic() - started_at:.1f} s")
    for final_s, final in sorted(finals, key=lambda pair: pair[0]):
        print(f"    {final_s * 1e6:9.1f} us  {final.launch_options()} ctas {final.ctas_per_sm}")
    return Winner(case.kernel, case.variant, case.shape, config, round(seconds * 1e6, 2))


def is_correct(case: Case, config: Config, launch: Launch, reference: torch.Tensor) -> bool:
    """Returns whether the candidate runs and agrees with the reference; says why not."""
    try:
        error = relative_error(launch(config), reference)
    except (triton.runtime.errors.OutOfResources, triton.runtime.errors.PTXASError, RuntimeError) as failure:
        if not isinstance(failure, triton.runtime.errors.OutOfResources):
            print(f"    {case.name} {config.launch_options()}: {type(failure).__name__} {str(failure)[:90]}")
        return False
    if not error < MAX_RELATIVE_ERROR:
        print(f"    {case.name} {config.launch_options()}: wrong by {error:.3g}")
        return False
    return True


def relative_error(out: torch.Tensor, reference: torch.Tensor) -> float:
    """Returns ||out - reference|| / ||reference||, NaN if either holds one."""
    return float((out.float() - reference.float()).norm() / reference.float().norm())


def compile_share(share: int, num_shares: int, chosen: Sequence[Case]) -> None:
    """Runs every num_shares-th candidate once, so that Triton's cache on disk holds it."""
    position = 0
    for case in chosen:
        launch, _ = case.prepare()
        for config in case.candidates:
            position += 1
            if position % num_shares == share:
                _try(launch, config)
        del launch
        torch.cuda.empty_cache()  # the other workers need the memory


def _try(launch: Launch, config: Config) -> None:
    try:
        launch(config)
    except (triton.runtime.errors.OutOfResources, triton.runtime.errors.PTXASError, RuntimeError):
        return


def compile_in_parallel(arguments: Sequence[str], num_workers: int) -> None:
    """Starts worker processes that each compile their share of what the arguments choose, and waits."""
    command = [sys.executable, "-m", "simllm.kernels.tune", *arguments]
    workers = [
        subprocess.Popen([*command, "--share", f"{share}/{num_workers}"]) for share in range(num_workers)
    ]
    for worker in workers:
        worker.wait()


def main() -> None:
    """Compiles in parallel, measures, and writes `tuned/<gpu>.json`."""
    parser = argparse.ArgumentParser(description="Measure kernel configurations and keep the winners.")
    parser.add_argument("kernels", nargs="*", help="kernels to tune (default: all)")
    parser.add_argument("--missing", action="store_true", help="only shapes that this GPU has no winner of")
    parser.add_argument("--share", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("tuning needs a CUDA GPU")
    chosen = chosen_cases(arguments.kernels, is_missing=arguments.missing)
    if arguments.share:
        share, num_shares = map(int, arguments.share.split("/"))
        compile_share(share, num_shares, chosen)
        return
    started_at = time.monotonic()
    compile_in_parallel(sys.argv[1:], max(1, min(MAX_WORKERS, os.cpu_count() or 1)))
    print(f"compiled in {time.monotonic() - started_at:.0f} s")
    table = tune(chosen)
    print(f"{len(table.winners)} winners of {table.gpu} in {time.monotonic() - started_at:.0f} s")


if __name__ == "__main__":
    main()
