"""What else may be asked of influence functions (Koh and Liang 2017): one question a file."""
