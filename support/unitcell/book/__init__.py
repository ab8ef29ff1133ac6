"""What makes the book: chapters and their ledgers, how they are run, how they draw, and the pages."""
