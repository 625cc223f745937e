"""The result: medians of the rounds as one JSON document and one table."""

from .measure import median_of

FIGURES = ("enqueue_per_s", "drain_per_s", "end_to_end_per_s", "p50_ms", "p99_ms", "cpu_us_per_job")
FLOOR_TITLE = "floor: the four hops of a job on raw JetStream"
FLOOR_COMMITS = "JetStream file, synced every 2 min; no ledger, no results"


def row(side):
    """Medians of a side's rounds; a figure that it does not have is null."""
    medians = {name: median_of([figures.get(name) for figures in side.rounds]) for name in FIGURES}
    server = next((figures["server_version"] for figures in side.rounds if "server_version" in figures), None)
    return {
        "name": side.name,
        "title": side.title,
        **medians,
        "commits": side.commits,
        "settings": side.settings,
        "versions": {**side.versions, **({"server": server} if server else {})},
        "rounds": side.rounds,
        "failures": side.failures,
    }


def rows_of(sides):
    """Fastest first, by jobs end to end; the floor, which the product's own command measures, comes last."""
    rows = [row(side) for side in sides if side.rounds]
    rows.sort(key=lambda one: -(one["end_to_end_per_s"] or 0))
    floors = [figures["floor_per_s"] for side in sides for figures in side.rounds if "floor_per_s" in figures]
    if floors:
        floor = dict.fromkeys(FIGURES)
        floor.update(name="floor", title=FLOOR_TITLE, commits=FLOOR_COMMITS, end_to_end_per_s=median_of(floors))
        rows.append({**floor, "settings": "", "versions": {}, "rounds": floors, "failures": []})
    return rows


def shown(value, digits=0):
    return "-" if value is None else f"{value:,.{digits}f}"


def table(rows):
    """As Markdown, which reads well in a terminal too."""
    heads = ("", "enqueue/s", "drain/s", "end to end/s", "p50 ms", "p99 ms", "CPU µs per job", "what is durable, what is kept")
    digits = (0, 0, 0, 2, 2, 0)
    lines = [
        [one["title"], *(shown(one[name], places) for name, places in zip(FIGURES, digits)), one["commits"]] for one in rows
    ]
    widths = [max(len(line[n]) for line in [heads, *lines]) for n in range(len(heads))]
    draw = lambda cells: "| " + " | ".join(
        cell.ljust(width) if n in (0, len(heads) - 1) else cell.rjust(width) for n, (cell, width) in enumerate(zip(cells, widths))
    ) + " |"
    rule = "|" + "|".join("-" * (width + 1) + ("-" if n in (0, len(heads) - 1) else ":") for n, width in enumerate(widths)) + "|"
    return "\n".join([draw(heads), rule, *(draw(line) for line in lines)])


def document(machine, options, toolchains, sides, left_out):
    return {
        "machine": machine,
        "toolchains": toolchains,
        "options": vars(options),
        "rows": rows_of(sides),
        "left_out": left_out,
    }
