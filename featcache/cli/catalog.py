"""`featcache backbones`, `featcache fetch` and `featcache completion`."""

from __future__ import annotations

import json

import click
from click.shell_completion import get_completion_class

from .options import Common, command, no_progress

_COMPLETION = """Print the completion script of a shell.

It completes commands, options, backbones and stores. To install it:

\b
bash:  eval "$(featcache completion bash)"      in ~/.bashrc
zsh:   eval "$(featcache completion zsh)"       in ~/.zshrc
fish:  featcache completion fish | source       in ~/.config/fish/config.fish
"""


@command("backbones")
@click.option("--hub", is_flag=True, help="List the presets of keras-hub instead.")
def backbones(common: Common, hub: bool) -> int:
    """List the available backbones.

    Per backbone: its name, the side of its input images in pixels, the width of its embedding,
    the number of parameters, the default layer, and whether the weights are on this disk.

    With --hub: the image backbones that keras-hub knows by name, for the extra `hub`. Nothing is
    downloaded before one of them is used, as in featcache extract hub:NAME photos/.
    """
    if hub:
        return _presets(as_json=common.json)
    from ..backbones.spec import backbone_entries
    from ..backbones.weights import imagenet_path

    if common.json:
        print(json.dumps([vars(entry) for entry in backbone_entries().values()], indent=2))
        return 0
    print(f"{'name':<20} {'pixels':>6} {'width':>6} {'parameters':>12}  layer; weights on disk")
    for e in backbone_entries().values():
        local = "yes" if e.packaged or imagenet_path(e) else "no"
        print(
            f"{e.name:<20} {e.image_size:>6} {e.width:>6} {e.parameters:>12,}  {e.layer}; {local}"
        )
    print("Image backbones of keras-hub are hub:NAME; `featcache backbones --hub` lists them.")
    return 0


def _presets(*, as_json: bool) -> int:
    from ..backbones.hub.preset import image_presets

    found = image_presets()
    if as_json:
        print(json.dumps([vars(one) for one in found.values()], indent=2))
        return 0
    print(f"{'name':<52} {'parameters':>14}  family")
    for one in found.values():
        print(f"hub:{one.name:<48} {one.parameters or 0:>14,}  {one.family}")
    return 0


@command("fetch")
@click.argument("name")
@click.option(
    "--from", "source", metavar="SOURCE", help="A folder with the archives, or the URL of a mirror."
)
@click.option(
    "--any-hash", is_flag=True, help="Accept archives whose hash is not that of the published ones."
)
@click.option("--keep-archives", is_flag=True, help="Keep the archives after unpacking.")
@no_progress
def fetch(
    common: Common,
    name: str,
    source: str | None,
    any_hash: bool,
    keep_archives: bool,
) -> int:
    """Download, check and unpack a published data set.

    NAME is stanford-dogs or oxford-pets. An interrupted download is resumed. Afterwards NAME
    can be used as DATA: featcache extract resnet50 stanford-dogs.
    """
    from ..datasets.fetched import fetch as run
    from ..datasets.fetched import load

    folder = run(
        name,
        source=source,
        any_hash=any_hash,
        keep_archives=keep_archives,
        cache_dir=common.cache_dir,
        progress=common.progress,
    )
    photos = load(name, cache_dir=common.cache_dir)
    boxes = load(name, crop="box", cache_dir=common.cache_dir)
    counts = {part: list(photos.split or []).count(part) for part in ("train", "test")}
    record = {
        "folder": str(folder),
        "photos": len(photos),
        "boxes": len(boxes),
        "classes": len(photos.classes or []),
        **counts,
    }
    if common.json:
        print(json.dumps(record, indent=2))
    else:
        print(
            f"{photos.name}: {len(photos):,} photos of {record['classes']} classes "
            f"({counts['train']:,} train, {counts['test']:,} test), {len(boxes):,} boxes, in "
            f"{folder}\nNext: featcache extract resnet50 {name}"
        )
    return 0


@click.command("completion", help=_COMPLETION)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> int:
    """Print the completion script of a shell."""
    kind = get_completion_class(shell)
    assert kind is not None  # click has all three
    print(kind(ctx.find_root().command, {}, "featcache", "_FEATCACHE_COMPLETE").source())
    return 0
