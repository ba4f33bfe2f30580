"""What a study is: its settings, its space, its database, and which trial is next."""
