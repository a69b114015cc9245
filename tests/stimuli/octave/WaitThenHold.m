classdef WaitThenHold < handle
    properties
        WaitTime = 0;
        HoldTime = 0;
        Success = false;
        Waiting = false;
    end
    methods
        function self = WaitThenHold(target)
        end
    end
end
