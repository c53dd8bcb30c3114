"""Input and output: files, the cache folder, downloads, progress bars and the terminal.

Contains atomic writes, the layout of the cache folder, hashes of files, and checks of names and
archives; nothing about images, models or stores. Every other package of featcache may import it;
code outside featcache uses `featcache.toolkit`.
"""
