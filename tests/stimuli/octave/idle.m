function idle(varargin), end
