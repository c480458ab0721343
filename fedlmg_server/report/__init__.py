"""What a run found, for people and programs: results.json, a terminal table, one self-contained HTML page."""
