def equal_time_jobs(*a):
    return []
