"""Results as one self-contained HTML page, with figures, photos, tables and raw data."""
