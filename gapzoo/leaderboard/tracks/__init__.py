"""How each kind of protocol is run; one file a track."""
