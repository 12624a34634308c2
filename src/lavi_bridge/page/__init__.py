"""A page to see bridges on: the studio draws and knows no page; the app shows and draws nothing."""
