function bhv_variable(varargin)
for k = 1:2:numel(varargin)
    printf('%s = %s\n', varargin{k}, mat2str(varargin{k + 1}, 8));
end
end
