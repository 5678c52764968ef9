"""`python -m omnialpha batch WORKFLOW.json`: many pictures through ComfyUI servers."""

from __future__ import annotations

import argparse
import os
import sys

from .arguments import add_checkpoint

BATCH_HELP = """\
Runs a workflow, exported from ComfyUI in API format, for many inputs on one or several ComfyUI servers, and downloads
what it saves. Run the same command again after any stop: only what is missing runs. Nothing is overwritten."""

EXAMPLES = """\
examples:
  batch matting.json --image 'in/*.png' --out out
  batch removal.json --image 'in/*.png' --guide 'masks/{stem}.png' --out out
  batch matting.json --image 'in/**/*.png' --server http://a:8188 --server http://b:8188 --out out
  batch matting.json --manifest jobs.csv --out out --dry-run
  batch matting_auto --engine ray --image 's3://bucket/in/*.png' --out s3://bucket/out --journal journal
Inputs are named TITLE.INPUT or ID.INPUT after the workflow's nodes; --image, --guide and --text find theirs. The
columns of a manifest are such names. docs/headless.md explains it all.
exit code: 0 all done, 3 some set aside with a reason, 4 some unfinished, 130 stopped, 2 the command is wrong."""

DEFAULT_SERVER = "http://127.0.0.1:8188"
DEFAULT_NAME = "{folder}/{job}-{index:02}"


def add_commands(commands) -> None:
    """Register `batch` below the main command's subparsers."""
    batch = commands.add_parser(
        "batch",
        help="run a workflow for many pictures on ComfyUI servers",
        description=BATCH_HELP,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    batch.add_argument(
        "workflow",
        metavar="WORKFLOW|TASK",
        help="JSON file: Workflow, Export (API) in ComfyUI; a task's id with --engine ray",
    )

    what = batch.add_argument_group("jobs")
    what.add_argument("--image", metavar="FILES", help="pattern in quotes, or a folder: one job per picture")
    what.add_argument("--guide", metavar="FILES", help="mask or trimap of each picture, such as 'masks/{stem}.png'")
    what.add_argument("--text", metavar="TEXT", help="text, which may hold {stem}, or a CSV with columns image, text")
    what.add_argument(
        "--input", metavar="NAME=VALUE", action="append", default=[], help="any other input; @FILE uploads a file"
    )
    what.add_argument("--manifest", metavar="TABLE", help="CSV or JSONL with one job per line, in place of patterns")

    where = batch.add_argument_group("servers")
    where.add_argument(
        "--server", metavar="URL", action="append", default=[], help=f"repeat for several ({DEFAULT_SERVER})"
    )
    where.add_argument(
        "--header",
        metavar="'NAME: VALUE'",
        action="append",
        default=[],
        help="sent with every request; @FILE reads such lines from a file",
    )
    where.add_argument(
        "--in-flight", type=_positive, default=3, metavar="N", help="jobs given to a server at a time (%(default)s)"
    )
    where.add_argument(
        "--upload-folder",
        metavar="NAME",
        default="omnialpha-batch",
        help="subfolder of the servers' input folder; '' for none (%(default)s)",
    )
    where.add_argument(
        "--patience",
        type=_positive,
        default=30,
        metavar="MINUTES",
        help="stop when no server gets anything done for so long (%(default)s)",
    )

    ray = batch.add_argument_group("the library on a Ray cluster, in place of servers")
    ray.add_argument("--engine", choices=("comfyui", "ray"), default="comfyui", help="who does the work (%(default)s)")
    add_checkpoint(ray)
    ray.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto", help="of the pipelines (%(default)s)")
    ray.add_argument("--workers", type=_positive, metavar="N", help="pipelines (default: as many as Ray has room for)")
    ray.add_argument(
        "--worker-gpus", type=float, metavar="G", help="GPUs of each; 0.5: two share one (default: 1 where Ray has any)"
    )
    ray.add_argument(
        "--worker-cpus",
        type=float,
        default=1.0,
        metavar="C",
        help="CPU cores of each where it has no GPU (%(default)s)",
    )
    ray.add_argument("--ray-address", metavar="URL", help="of a running cluster, or auto (default: this machine)")

    results = batch.add_argument_group("results")
    results.add_argument(
        "--out",
        required=True,
        metavar="DIR",
        help="where results go; with --engine ray also an address, s3://bucket/out",
    )
    results.add_argument("--journal", metavar="DIR", help="folder of this machine for journal and reports (OUT/_batch)")
    results.add_argument(
        "--name",
        metavar="TEMPLATE",
        default=DEFAULT_NAME,
        help="of {job} {folder} {number} {id} {index} {node} {name} (%(default)s)",
    )
    results.add_argument("--previews", action="store_true", help="download previews too, not only saved files")

    how = batch.add_argument_group("how")
    how.add_argument("--dry-run", action="store_true", help="print the plan and end")
    how.add_argument("--retry-failed", action="store_true", help="try again what was set aside")
    talk = how.add_mutually_exclusive_group()
    talk.add_argument("--quiet", action="store_true", help="print the summary only")
    talk.add_argument("--json-lines", action="store_true", help="print each event as a line of JSON")
    batch.set_defaults(command=_batch)


def _positive(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def _batch(args) -> int:
    from ..batch.addresses import is_address
    from ..batch.jobs import describe, make_jobs
    from ..batch.journal import Journal
    from ..batch.runner import check_servers
    from ..batch.server import Server
    from ..batch.workflow import Workflow
    from ..errors import OmniAlphaError

    on_ray = args.engine == "ray"
    if on_ray:
        from ..batch.ray_engine import task_graph

        if args.server or args.header:
            raise OmniAlphaError("With --engine ray no ComfyUI takes part; leave out --server and --header.")
        workflow = task_graph(args.workflow, args.checkpoint)
    else:
        workflow = Workflow.read(args.workflow)
    rows = _rows(args, workflow)
    if args.dry_run:
        print(describe(workflow, make_jobs(workflow, rows, args.name), args.name))
        return 0
    servers, folder = [], _folder(args)
    if not on_ray:
        headers = _headers(args.header)
        servers = [Server(url, headers, args.upload_folder) for url in dict.fromkeys(args.server or [DEFAULT_SERVER])]
        check_servers(servers)
    journal = Journal(folder.own / "journal.sqlite3")
    try:
        jobs = make_jobs(workflow, rows, args.name, journal.hash_file)
        away = next((file.path for job in jobs for file in job.files if is_address(file.path)), None)
        if servers and away is not None:
            raise OmniAlphaError(f"{away}: only --engine ray reads from addresses; give paths of this machine.")
        return _run(args, workflow, jobs, servers=servers, journal=journal, folder=folder)
    finally:
        journal.close()


def _folder(args):
    """Where results go, and on this machine the journal. Raises OmniAlphaError."""
    from pathlib import Path

    from ..batch.addresses import is_address, locate
    from ..batch.results import Folder
    from ..errors import OmniAlphaError

    if args.journal and is_address(args.journal):
        raise OmniAlphaError(f"The journal {args.journal} is a database and has to lie in a folder of this machine.")
    if is_address(args.out):
        if args.engine != "ray":
            raise OmniAlphaError(f"--out {args.out}: only --engine ray writes to addresses; give a folder.")
        if not args.journal:
            raise OmniAlphaError(
                f"--out {args.out} is not on this machine, but the journal, by which a run goes on after a stop, has "
                f"to be. Say where it goes, the same folder each time: --journal FOLDER."
            )
    return Folder(locate(args.out), args.name, Path(args.journal).expanduser() if args.journal else None)


def _run(args, workflow, jobs, *, servers, journal, folder) -> int:
    from ..batch.flight import Limits
    from ..batch.journal import JournalError
    from ..batch.progress import Bar, Lines, Quiet
    from ..batch.ray_engine import Cluster, RayRun
    from ..batch.report import exit_code, write_reports
    from ..batch.runner import Run, prepare
    from ..errors import OmniAlphaError
    from ..files.writing import DiskError

    try:
        ready = prepare(jobs, journal, folder, args.retry_failed)
        finished = len(jobs) - len(ready.jobs)
        if not (args.quiet or args.json_lines):
            _say(_plan(len(jobs), ready))
        progress = Lines() if args.json_lines else Quiet() if args.quiet else Bar(len(jobs), finished)
        if servers:
            limits = Limits(in_flight=args.in_flight, patience=args.patience * 60)
            run = Run(
                servers,
                workflow,
                ready.jobs,
                journal=journal,
                folder=folder,
                limits=limits,
                say=progress,
                previews=args.previews,
            )
        else:
            cluster = Cluster(args.workers, args.worker_gpus, args.worker_cpus, args.ray_address, args.device)
            run = RayRun(cluster, workflow, ready.jobs, journal=journal, folder=folder, say=progress)
        try:
            end = run.run()
        finally:
            progress.close()
        summary, paths = write_reports(folder.own, journal, [job.id for job in jobs], end)
    except (DiskError, JournalError) as error:
        raise OmniAlphaError(f"{error} Nothing is lost: make room and run the same command again to go on.") from error
    if args.json_lines:
        progress({"event": "end", **summary})
        return exit_code(summary, end)
    print(
        f"{summary['done']} of {summary['jobs']} jobs done, {summary['set aside']} set aside, "
        f"{summary['unfinished']} unfinished; see {paths[-1]}"
    )
    if summary["unfinished"]:
        _say(f"omnialpha: {end}. Run the same command again to go on.")
    return exit_code(summary, end)


def _rows(args, workflow) -> list:
    """The jobs as the command line says them. Raises OmniAlphaError."""
    from ..batch.rows import from_manifest, from_patterns
    from ..errors import OmniAlphaError

    values = {role: getattr(args, role) for role in ("image", "guide", "text") if getattr(args, role) is not None}
    for pair in args.input:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise OmniAlphaError(f"--input '{pair}' is not NAME=VALUE, such as 'Your picture.image=photo.png'.")
        values[name] = value
    if args.manifest and values:
        raise OmniAlphaError("A manifest says all inputs; leave out --image, --guide, --text and --input beside it.")
    if not args.manifest and not values:
        raise OmniAlphaError("Say which jobs to run: --image 'in/*.png', or --manifest jobs.csv.")
    if args.manifest:
        return list(from_manifest(args.manifest))
    return list(from_patterns(values, lambda name: workflow.takes_file(workflow.find(name))))


def _headers(given: list[str]) -> dict[str, str]:
    from ..errors import OmniAlphaError

    lines = []
    for text in given:
        if not text.startswith("@"):
            lines.append(text)
            continue
        try:
            with open(os.path.expanduser(text[1:]), encoding="utf-8") as file:
                lines += filter(str.strip, file)
        except OSError as error:
            raise OmniAlphaError(f"{text[1:]} cannot be read: {error.strerror or error}.") from error
    pairs = [line.partition(":") for line in lines]
    if any(not (name.strip() and colon) for name, colon, _ in pairs):
        raise OmniAlphaError("A header is 'NAME: VALUE', such as 'Authorization: Bearer TOKEN'.")
    return {name.strip(): value.strip() for name, _, value in pairs}


def _plan(total: int, ready) -> str:
    parts = [f"{total} jobs, {len(ready.jobs)} to run"]
    parts += [f"{ready.done} done earlier"] if ready.done else []
    parts += [f"{ready.gone} done earlier whose files are gone"] if ready.gone else []
    parts += [f"{ready.set_aside} set aside earlier (--retry-failed runs them)"] if ready.set_aside else []
    return "; ".join(parts)


def _say(line: str) -> None:
    print(line, file=sys.stderr)
