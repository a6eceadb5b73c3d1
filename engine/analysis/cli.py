"""The analysts' commands: options here, the work in modules imported when needed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engine.cli import AsJson, app, exits

Readings = Annotated[
    list[Path],
    typer.Argument(
        metavar="READINGS",
        help="Files or folders of readings: Parquet, Arrow IPC, CSV, NDJSON; gz and zst too.",
    ),
]
CatalogFile = Annotated[
    Path, typer.Option("--catalog", metavar="FILE", help="The compiled catalog.")
]
RulesFile = Annotated[Path, typer.Option("--rules", metavar="FILE", help="The rules (TOML).")]
AdapterFile = Annotated[
    Path | None,
    typer.Option("--adapter", metavar="FILE", help="How the readings are laid out (TOML)."),
]
Since = Annotated[
    str | None,
    typer.Option("--from", metavar="TIME", help="First event time: ISO 8601 or epoch ms."),
]
Until = Annotated[
    str | None,
    typer.Option("--to", metavar="TIME", help="Event time to stop before: ISO 8601 or ms."),
]
Sort = Annotated[
    bool, typer.Option("--sort", help="Sort by event time first (through temporary files).")
]
Threads = Annotated[
    int, typer.Option("--threads", min=1, max=1024, metavar="N", help="Threads to run on.")
]
TruthFile = Annotated[
    Path | None,
    typer.Option(
        "--truth", metavar="FILE", help="What really happened (CSV: source, start, end, kind)."
    ),
]
Lead = Annotated[
    float,
    typer.Option(
        "--lead", min=0, metavar="S", help="Seconds before an incident at which an alarm counts."
    ),
]
Grace = Annotated[
    float, typer.Option("--grace", min=0, metavar="S", help="Seconds after its end that count.")
]
Operators = Annotated[
    str,
    typer.Option(
        "--by",
        metavar="WAY",
        help="What makes an operator: department, owner, district, category or all.",
    ),
]
OfLevel = Annotated[
    str, typer.Option("--level", metavar="LEVEL", help="At or above which level a source counts.")
]


@app.command()
@exits
def tune(
    readings: Readings,
    catalog: CatalogFile,
    rules: RulesFile,
    space: Annotated[
        Path | None,
        typer.Option("--space", metavar="FILE", help="Which keys may vary, and how (TOML)."),
    ] = None,
    truth: TruthFile = None,
    objective: Annotated[
        list[str] | None,
        typer.Option(
            "--objective",
            metavar="'min FIGURE'",
            help="What to make small or large; several give a Pareto front.",
        ),
    ] = None,
    require: Annotated[
        list[str] | None,
        typer.Option(
            "--require", metavar="'FIGURE <= X'", help="What the chosen rules must keep to."
        ),
    ] = None,
    choose: Annotated[
        str,
        typer.Option(
            "--choose",
            metavar="HOW",
            help="Of the front: by the order of the objectives, or their balance.",
        ),
    ] = "order",
    search: Annotated[
        str | None,
        typer.Option("--search", metavar="HOW", help="grid, random or adaptive, over the space's."),
    ] = None,
    settings: Annotated[
        int | None,
        typer.Option("--settings", min=1, metavar="N", help="How many settings to try."),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", metavar="N", help="Of the search.")] = None,
    level: Annotated[
        str | None,
        typer.Option("--level", metavar="LEVEL", help="At which level incidents must be found."),
    ] = None,
    lead: Lead = 0.0,
    grace: Grace = 0.0,
    by: Operators = "department",
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="The study's folder.")
    ] = Path("study"),
    adapter: AdapterFile = None,
    since: Since = None,
    until: Until = None,
    sort: Sort = False,
    threads: Threads = 2,
    solve: Annotated[
        bool,
        typer.Option(
            "--solve", help="Find limits, deadbands and delays that keep operators' load in bounds."
        ),
    ] = False,
    per: Annotated[
        str,
        typer.Option("--per", metavar="WHAT", help="Solve per profile, or per sensor besides."),
    ] = "profile",
    max_delay: Annotated[
        float | None,
        typer.Option(
            "--max-delay", min=0, metavar="S", help="No incident may be found later than this."
        ),
    ] = None,
    max_rate: Annotated[
        float,
        typer.Option("--max-rate", min=0, metavar="N", help="Alarms an operator in 10 minutes."),
    ] = 1.0,
    turn: Annotated[
        list[str] | None,
        typer.Option("--turn", metavar="WHAT", help="What solving may change; several."),
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Try many settings of the rules over a history, and choose."""
    from engine.analysis.tuning import cli as tune_cli

    return tune_cli.run(
        readings=readings,
        catalog=catalog,
        rules=rules,
        space=space,
        truth=truth,
        objectives=objective or (),
        requirements=require or (),
        choose=choose,
        search=search,
        settings=settings,
        seed=seed,
        level=level,
        lead_s=lead,
        grace_s=grace,
        by=by,
        output=output,
        adapter=adapter,
        since=since,
        until=until,
        sort=sort,
        threads=threads,
        as_json=as_json,
        solve=solve,
        per=per,
        max_delay_s=max_delay,
        max_rate=max_rate,
        turn=turn or (),
    )


@app.command()
@exits
def report(
    readings: Annotated[
        list[Path],
        typer.Argument(
            metavar="READINGS",
            help="Files or folders of readings, or the one folder of a study.",
        ),
    ],
    catalog: Annotated[
        Path | None,
        typer.Option("--catalog", metavar="FILE", help="The compiled catalog; not for a study."),
    ] = None,
    rules: Annotated[
        Path | None,
        typer.Option("--rules", metavar="FILE", help="The rules (TOML); not for a study."),
    ] = None,
    adapter: AdapterFile = None,
    truth: TruthFile = None,
    lead: Lead = 0.0,
    grace: Grace = 0.0,
    since: Since = None,
    until: Until = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="The page to write.")
    ] = Path("report.html"),
    by: Operators = "department",
    episodes: Annotated[
        int,
        typer.Option(
            "--strips", min=0, max=200, metavar="N", help="Episodes that get a strip chart."
        ),
    ] = 24,
    title: Annotated[str | None, typer.Option("--title", metavar="TEXT", help="Its title.")] = None,
    threads: Threads = 1,
    sort: Sort = False,
    as_json: AsJson = False,
) -> int:
    """Write one page that says what rules made of a history, or what a study found: no network."""
    from engine.analysis.reports import cli as report_cli

    return report_cli.run(
        readings=readings,
        catalog=catalog,
        rules=rules,
        adapter=adapter,
        truth=truth,
        since=since,
        until=until,
        output=output,
        operators=by,
        episodes=episodes,
        title=title,
        lead_s=lead,
        grace_s=grace,
        threads=threads,
        sort=sort,
        as_json=as_json,
    )


@app.command()
@exits
def diff(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="Rules (TOML).")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="Other rules (TOML).")],
    readings: Readings,
    catalog: CatalogFile,
    adapter: AdapterFile = None,
    since: Since = None,
    until: Until = None,
    sort: Sort = False,
    threads: Threads = 2,
    truth: TruthFile = None,
    level: OfLevel = "blue",
    lead: Lead = 0.0,
    grace: Grace = 0.0,
    fail_on: Annotated[
        list[str] | None,
        typer.Option(
            "--fail-on",
            metavar="WHAT",
            help="Exit with 1 on: any, missed, new, later:30s, lower, more:10%, lost, "
            "found-later:30s, false:0 …; several, with commas.",
        ),
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write it as a page, too.")
    ] = None,
    most: Annotated[
        int, typer.Option("--most", min=1, metavar="N", help="Episodes of a kind that are listed.")
    ] = 10,
    as_json: AsJson = False,
) -> int:
    """Set the same history under two rule sets side by side."""
    from engine.analysis.diffs import cli as diff_cli

    return diff_cli.run(
        old=old,
        new=new,
        readings=readings,
        catalog=catalog,
        adapter=adapter,
        since=since,
        until=until,
        sort=sort,
        threads=threads,
        truth=truth,
        level=level,
        lead_s=lead,
        grace_s=grace,
        fail_on=fail_on or (),
        html=html,
        as_json=as_json,
        most=most,
    )


@app.command()
@exits
def explain(
    alert: Annotated[
        str, typer.Argument(metavar="ALERT_ID", help="As in its record; #3 after it: that seq.")
    ],
    readings: Readings,
    catalog: CatalogFile,
    rules: RulesFile,
    adapter: AdapterFile = None,
    since: Since = None,
    until: Until = None,
    sort: Sort = False,
    threads: Threads = 1,
    truth: TruthFile = None,
    level: OfLevel = "blue",
    prevent: Annotated[
        bool,
        typer.Option(
            "--prevent/--no-prevent", help="Find what would have prevented it, by running again."
        ),
    ] = True,
    effects: Annotated[
        bool,
        typer.Option(
            "--effects/--no-effects", help="Say what else each such change would have done."
        ),
    ] = True,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write it as a page, too.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Say what made an alert, and what would have prevented it."""
    from engine.analysis.explaining import cli as explain_cli

    return explain_cli.run(
        alert_id=alert,
        readings=readings,
        catalog=catalog,
        rules=rules,
        adapter=adapter,
        since=since,
        until=until,
        sort=sort,
        threads=threads,
        truth=truth,
        level=level,
        prevent=prevent,
        effects=effects,
        html=html,
        as_json=as_json,
    )


@app.command()
@exits
def test(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILES", help="Tests of rules (TOML); of a folder, *_test.toml."),
    ],
    rules: Annotated[
        Path | None,
        typer.Option("--rules", metavar="FILE", help="Test these rules, whatever the tests name."),
    ] = None,
    catalog: Annotated[
        Path | None,
        typer.Option("--catalog", metavar="FILE", help="Take sources from this catalog."),
    ] = None,
    match: Annotated[
        str | None,
        typer.Option("-k", "--match", metavar="TEXT", help="Only tests with this in their name."),
    ] = None,
    min_coverage: Annotated[
        float | None,
        typer.Option(
            "--min-coverage",
            min=0,
            max=100,
            metavar="PERCENT",
            help="Fail where less of the rules is reached and cleared by the tests.",
        ),
    ] = None,
    junit: Annotated[
        Path | None, typer.Option("--junit", metavar="FILE", help="Write JUnit XML, too.")
    ] = None,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="List every test.")] = False,
    as_json: AsJson = False,
) -> int:
    """Run tests of rules: given these readings, at this time expect this level. 1: some failed."""
    from engine.analysis.rule_tests import cli as rule_tests_cli

    return rule_tests_cli.run(
        files=files,
        rules=rules,
        catalog=catalog,
        match=match,
        min_coverage=min_coverage,
        junit=junit,
        as_json=as_json,
        verbose=verbose,
    )
