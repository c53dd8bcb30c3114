"""Files, folders, downloads, progress and the terminal: what every other room stands on.

Atomic writes, the layout of the cache folder, hashes of files, safe names and archives live
here. It knows nothing of images, models or stores. Every room may import it; packages outside
use `featcache.toolkit`.
"""
