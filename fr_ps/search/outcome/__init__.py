"""What came out of a study, and what comes after: tables, pictures, the winner trained again and weighed against the base."""
