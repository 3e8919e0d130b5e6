"""The search for a method's settings: what loses least at which speed."""
