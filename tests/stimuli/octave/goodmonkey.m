function goodmonkey(varargin), printf('REWARD\n'); end
