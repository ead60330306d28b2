"""Deploy: anydim on a Ray cluster, files over many machines with Ray Data and a service with Ray Serve."""
