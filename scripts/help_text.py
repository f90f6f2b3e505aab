"""Help pages: options in sections, and metavars that say what to type."""

from __future__ import annotations

from typing import Any

import click

# title -> names of the parameters; of long pages only, and the rest is under "Options"
SECTIONS: dict[str, str] = {
    "Images and labels": (
        "listing recursive all_frames ignore_transparent images labels dataset root split annotations image_ending "
        "label_ending void label_offset label_colors label_classes map_file limit others upscale count"
    ),
    "Preprocessing": "mean scale color_order minimum_size transposed",
    "Size and memory": "size max_side native memory",
    "Network": "backend network device precision threads workers batch vs",
    "Dense CRF": "crf fast_crf crf_device crf_mode crf_gaussian crf_bilateral crf_iterations crf_sweep warm_crf",
    "Search": "method weights sxy srgb halvings iterations hold_out race dry_run",
    "The net": (
        "name info class_set head task points opset no_verify phase level stages variables inputs dialect plugins"
    ),
    "Shapes": "shape minimum optimum maximum shapes fixed",
    "Measurement": "duration_s min_samples max_samples warmup_s repeats pipeline_rounds pipeline_images roofline quick",
    "Load": "scenarios load_duration_s full server_qps latency_bound_ms samples_per_query curve",
    "Results": (
        "out force kinds naming opacity outlines legend jpeg resume arrays top worst bands band_reference report "
        "plot bound strict as_json"
    ),
}
_LONG = 12  # options from which on a page has sections
_TITLES = {name: title for title, names in SECTIONS.items() for name in names.split()}


def improve_help(command: click.Command) -> None:
    """Give a command, and those below it, sections and metavars; may be called twice."""
    for parameter in command.params:
        if parameter.metavar is None and isinstance(parameter.type, click.IntRange | click.FloatRange):
            parameter.metavar = "N" if isinstance(parameter.type, click.IntRange) else "NUMBER"
    if isinstance(command, click.Group):
        for child in command.commands.values():
            improve_help(child)
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    if len(options) >= _LONG:

        def format_options(context: click.Context, formatter: click.HelpFormatter) -> None:
            _write_sections(command, context, formatter)

        setattr(command, "format_options", format_options)  # noqa: B010 (mypy allows no assignment to a method)


def _write_sections(command: click.Command, context: click.Context, formatter: click.HelpFormatter) -> None:
    sections: dict[str, list[tuple[str, str]]] = {title: [] for title in ("Options", *SECTIONS)}
    for parameter in command.get_params(context):
        record: Any = parameter.get_help_record(context)
        if record is not None:
            sections[_TITLES.get(parameter.name or "", "Options")].append(record)
    rest = sections.pop("Options")
    for title, records in [*sections.items(), ("Options", rest)]:
        if records:
            with formatter.section(title):
                formatter.write_dl(records)
