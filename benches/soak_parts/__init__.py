"""What benches/soak.py is made of."""
