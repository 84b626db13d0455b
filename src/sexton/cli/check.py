"""`sexton check`: is a command fit to be PID 1?"""
