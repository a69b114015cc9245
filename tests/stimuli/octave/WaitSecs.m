function WaitSecs(s), clock_set(clock_set() + s); end
