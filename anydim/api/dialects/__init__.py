"""One file a dialect: the request and response shapes of the interfaces that clients already speak."""
