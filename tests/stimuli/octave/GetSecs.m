function t = GetSecs(), t = clock_set(); end
