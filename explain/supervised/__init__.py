"""Any torch classifier or regressor on tables and images; the template for a new family."""
