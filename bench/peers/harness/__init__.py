"""What `bench/peers/run` consists of: processes, servers, peers, measuring, the report."""
