"""Named numbers with their intervals, tables and pictures: what every analysis gives."""
