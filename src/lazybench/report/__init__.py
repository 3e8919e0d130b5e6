"""Tables, figures and the page, from what the store wrote; nothing here measures."""
