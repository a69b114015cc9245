function bhv_code(varargin), end
