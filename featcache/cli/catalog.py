"""What can be had by name: backbones, published data sets, and shell completion."""

from __future__ import annotations

import json

import click
from click.shell_completion import get_completion_class

from .options import Common, command, no_progress

_COMPLETION = """Print the script for completion in a shell.

It completes commands, options, backbones and stores.

\b
bash:  eval "$(featcache completion bash)"      in ~/.bashrc
zsh:   eval "$(featcache completion zsh)"       in ~/.zshrc
fish:  featcache completion fish | source       in ~/.config/fish/config.fish
"""


@command("backbones")
def backbones(common: Common) -> int:
    """List the backbones with image size, layer and width."""
    from ..backbones.spec import backbone_entries
    from ..backbones.weights import imagenet_path

    if common.json:
        print(json.dumps([vars(entry) for entry in backbone_entries().values()], indent=2))
        return 0
    print(f"{'name':<20} {'pixels':>6} {'width':>6} {'parameters':>12}  layer; weights on disk")
    for r in backbone_entries().values():
        here = "yes" if r.packaged or imagenet_path(r) else "no"
        print(f"{r.name:<20} {r.image_size:>6} {r.width:>6} {r.parameters:>12,}  {r.layer}; {here}")
    return 0


@command("fetch")
@click.argument("name")
@click.option("--from", "source", metavar="WHERE", help="Folder with the archives, or a mirror.")
@click.option("--any-hash", is_flag=True, help="Take archives that are not the published ones.")
@click.option("--keep-archives", is_flag=True, help="Do not delete them once unpacked.")
@no_progress
def fetch(
    common: Common,
    name: str,
    source: str | None,
    any_hash: bool,
    keep_archives: bool,
    no_progress: bool,
) -> int:
    """Download a published data set, check it, unpack it.

    NAME is stanford-dogs or oxford-pets. A download that was cut off is continued.
    """
    from ..datasets.fetched import fetch as run
    from ..datasets.fetched import load

    folder = run(
        name,
        source=source,
        any_hash=any_hash,
        keep_archives=keep_archives,
        cache_dir=common.cache_dir,
        progress=common.progress(no_progress),
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
            f"({counts['train']:,} to train, {counts['test']:,} to test), {len(boxes):,} boxes, in "
            f"{folder}\nNext: featcache extract resnet50 {name}"
        )
    return 0


@click.command("completion", help=_COMPLETION)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> int:
    """Print the script for completion in a shell."""
    kind = get_completion_class(shell)
    assert kind is not None  # click has all three
    print(kind(ctx.find_root().command, {}, "featcache", "_FEATCACHE_COMPLETE").source())
    return 0
