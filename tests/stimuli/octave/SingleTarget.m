classdef SingleTarget < handle
    properties
        Target = [];
        Threshold = [];
    end
    methods
        function self = SingleTarget(tracker)
        end
    end
end
