function set_iti(varargin), end
