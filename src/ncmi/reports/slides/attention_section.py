"""The slides of a run whose attention was kept: how each was decided, and where the network looked."""

from __future__ import annotations

from ncmi.reports import elements as e
from ncmi.reports import text
from ncmi.reports.slides import captions
from ncmi.reports.slides.attention import Attention, attention_files, read_attention
from ncmi.reports.slides.captions import Figures
from ncmi.reports.slides.heat_map import TOP, heat_panels, patches_panel
from ncmi.reports.slides.records import SlideRun, SlideTable
from ncmi.reports.slides.sources import Sources
from ncmi.reports.slides.words import score
from ncmi.reports.statistics import method_name

MOST_SLIDES = 8
"""More slides than this would make a page of many megabytes."""


def attention_section(run: SlideRun, table: SlideTable, sources: Sources, figures: Figures) -> str:
    """One part for each slide with attention, by true class; empty where the run kept none.

    Raises:
        ReportError: if a file of attention is damaged.
    """
    place = {slide: index for index, slide in enumerate(table.slides)}
    files = {slide: path for slide, path in attention_files(run.folder).items() if slide in place}
    ordered = sorted(files, key=lambda slide: (table.labels[place[slide]], slide))
    if not ordered:
        return ""
    chosen = [ordered[index * len(ordered) // MOST_SLIDES] for index in range(MOST_SLIDES)]
    if len(ordered) <= MOST_SLIDES:
        chosen = ordered
    parts = [e.paragraph(captions.CHOSEN)]
    if len(chosen) < len(ordered):
        parts.append(e.paragraph(f"{len(chosen)} of the {len(ordered)} slides in the run folder are shown.", "note"))
    for number, slide in enumerate(chosen):
        attention = read_attention(files[slide])
        parts.append(_slide(f"heat{number}", run, table.take([place[slide]]), attention, sources, figures))
    return e.section("Where the network looked", *parts)


def _slide(
    name: str, run: SlideRun, table: SlideTable, attention: Attention, sources: Sources, figures: Figures
) -> str:
    parts = [f"<h3>{e.escape(attention.slide)}</h3>\n", e.paragraph(_decided(run, table)), _probabilities(run, table)]
    parts.append(e.paragraph(_spread(attention)))
    top = attention.top(TOP)
    if attention.coords is None:
        words = "The features' file holds no coordinates, so there is no heat map: where these patches lie is unknown."
        return "".join([*parts, e.paragraph(words, "warning"), _list(attention, top)])
    corners = [(int(x), int(y)) for x, y in attention.coords[top]]
    picture = sources.picture(attention.slide, corners, attention.patch_size)
    what = f"attention over the slide ({picture.note})"
    if picture.thumbnail is None:
        what = "attention over the grid of patches alone"
        parts.append(e.paragraph(f"No picture of this slide: {picture.note}.", "note"))
    caption = captions.HEAT.format(slide=attention.slide, what=what)
    drawn = figures.figure(caption, heat_panels(name, attention, picture))
    if picture.patches:
        caption = captions.PATCHES.format(slide=attention.slide)
        return "".join([*parts, drawn, figures.figure(caption, [patches_panel(attention, picture)], kind="one")])
    listed = _list(attention, top)
    if picture.thumbnail is None:
        return "".join([*parts, e.beside(drawn, listed)])
    return "".join(
        [*parts, drawn, f"<details>\n<summary>Places of the numbered patches</summary>\n{listed}</details>\n"]
    )


def _decided(run: SlideRun, table: SlideTable) -> str:
    assert run.results is not None
    names, readout = run.results.class_names, run.results.primary_readouts[0]
    true, taken = int(table.labels[0]), int(table.probabilities[readout][0].argmax())
    share = f"p = {score(float(table.probabilities[readout][0, taken]))}"
    patient = "" if table.patients[0] == table.slides[0] else f" ({table.patients[0]})"
    method = method_name(run.label, readout)
    if true == taken:
        return f"True class {names[true]}{patient}; {method} decides for it, {share}."
    return f"True class {names[true]}{patient}; {method} decides for {names[taken]}, {share}: wrong."


def _spread(attention: Attention) -> str:
    count = "1 patch" if len(attention.values) == 1 else f"{len(attention.values):,} patches"
    top = attention.top(TOP)
    share = 100 * float(attention.values[top].sum())
    return (
        f"{count}. The attention is spread like "
        f"{text.significant(attention.effective)} of them; the highest {len(top)} carry {share:.0f} % of it."
    )


def _probabilities(run: SlideRun, table: SlideTable) -> str:
    assert run.results is not None
    names, true = run.results.class_names, int(table.labels[0])
    lines = []
    for readout in run.results.primary_readouts:
        values = table.probabilities[readout][0]
        cells = [score(float(value)) for value in values]
        cells[int(values.argmax())] = f"<b>{cells[int(values.argmax())]}</b>"
        lines.append([e.escape(method_name(run.label, readout)), *cells])
    headings = [f"{name} (true)" if index == true else name for index, name in enumerate(names)]
    return e.table(("Probability of", *headings), lines)


def _list(attention: Attention, top: list[int]) -> str:
    """The top patches by their place, where there are no images of them."""
    relative = attention.relative
    lines = []
    for number, place in enumerate(top, start=1):
        where = [str(place)] if attention.coords is None else [str(int(part)) for part in attention.coords[place]]
        share = f"{100 * attention.values[place]:.1f} %"
        lines.append([str(number), *where, f"{text.significant(float(relative[place]))}×", share])
    where = ["patch number"] if attention.coords is None else ["x", "y"]
    told = "" if attention.coords is None else f"Corners in pixels of level 0; a patch is {attention.patch_size} wide."
    return e.table(("Top", *where, "attention / even", "share"), lines) + (e.paragraph(told, "note") if told else "")
